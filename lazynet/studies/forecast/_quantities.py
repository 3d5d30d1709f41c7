"""The quantities in a result of `lazynet.forecast`, which are those of a sweep."""

from lazynet.measures import catalog
from lazynet.measures._catalog import add

add("forecast", *catalog().values())
