"""beartype as the tests use it: an int where a float is asked for is fine, as Python's typing rules say."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
