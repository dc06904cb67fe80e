"""Files of rows that a council is asked about, one after the other: read as they stand, and checked before a call.

Nothing is guessed and nothing is changed silently: a row that cannot be asked is told with its line, its id and its
field, and a file that cannot be read as it is meant is refused whole.
"""
