"""Files, what should run, what runs.

bounded     calls that may never return, such as opening a file on a mount that hangs
drivers     the directory of drivers as it should be at work: the newest version of each, or the last good one
files       reads connection files: one file into a model or its problems, a directory into entries by id
last_good   what must survive a restart about connection files: how many versions were seen
slot        one id: what belongs to it whichever version of its file runs
stamps      by what a file is known to be as it was, without reading it
supervisor  reads the files, plans what has to change, and applies it; each id has a slot
versions    the directory of connection files as it should be at work: the newest version of each file
watcher     says that connection files may have changed, soon after they did

Imports connection, downlinks, intake, connectors, connector, codecs, spool, config; the ground is open to all.
"""
