"""Everything at once on one machine: broker, destination, daemon and a simulated LRC, in one directory.

scene     what the directory holds: settings and two connections, at free ports of loopback
stage     runs the parts: receiver, the daemon as a child process, what its health page says
play      the demo from beginning to end
view      what people see meanwhile
"""
