"""The embedded MQTT broker: a child process for applications on the same machine, started, watched, ended.

keeper    keeps the embedded MQTT broker running as a child process: started, watched, started anew, ended
lifeline  ends a child process when its parent does, also when the parent was killed
process   the embedded MQTT broker: amqtt's, in a process of its own, for applications on the same machine

Imports the ground only.
"""
