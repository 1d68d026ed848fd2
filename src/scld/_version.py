"""The version, without the public names.

It is that of the installed package. The build took it from git's tags.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("scld")
except PackageNotFoundError:  # the source runs without being installed
    __version__ = "0+unknown"
