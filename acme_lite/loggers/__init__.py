"""Where the figures of a run go: files, TensorBoard, the terminal, memory, a progress bar and plots."""

from acme_lite.loggers.csv_logger import CSVLogger
from acme_lite.loggers.factory import Dispatcher, make_logger_factory
from acme_lite.loggers.in_memory import InMemoryLogger
from acme_lite.loggers.interface import Logger, LoggerFactory
from acme_lite.loggers.output import say, tolerate_loss
from acme_lite.loggers.plots import plot_learning_curve
from acme_lite.loggers.progress import Progress
from acme_lite.loggers.tensorboard import TensorBoardLogger
from acme_lite.loggers.terminal import TerminalLogger

__all__ = [
    "CSVLogger",
    "Dispatcher",
    "InMemoryLogger",
    "Logger",
    "LoggerFactory",
    "Progress",
    "TensorBoardLogger",
    "TerminalLogger",
    "make_logger_factory",
    "plot_learning_curve",
    "say",
    "tolerate_loss",
]
