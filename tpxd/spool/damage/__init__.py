"""What can be done when bytes on the disk have changed, or the disk has failed: read it all the same, into a new file.

wal         what the write-ahead log holds, frame by frame                               pure
scan        rows, wherever in the pages they are                                         pure
old_file    bytes of a file that may be unreadable in places
rebuild     a whole database out of them
repair      the new file in place of the old one
"""
