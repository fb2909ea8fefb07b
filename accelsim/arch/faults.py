"""What is wrong with an architecture, and at which parameter."""

from accelsim.errors import ParameterError as ParameterError
from accelsim.errors import unknown as unknown
