"""The version of this installation."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("treering")
except PackageNotFoundError:  # run from a checkout
    VERSION = "0.0.0+checkout"
