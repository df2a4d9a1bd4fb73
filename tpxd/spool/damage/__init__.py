"""What can be done when bytes on the disk have changed: read them all the same, and make a new file.

wal         what the write-ahead log holds, frame by frame                               pure
scan        rows, wherever in the pages they are                                         pure
rebuild     a whole database out of them
repair      the new file in place of the old one
"""
