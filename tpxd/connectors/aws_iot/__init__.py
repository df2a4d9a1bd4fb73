"""AWS IoT Core: uplinks over MQTT, devices into its registry.

config     what a connection file says for AWS IoT Core, and where that leads to
connector  Connector `actility-aws-iot`: uplinks to AWS IoT Core over MQTT 3.1.1, and devices into its registry
registry   the device registry of AWS IoT Core: things, their types, and the certificates that belong to them
sigv4      AWS Signature Version 4: proves that a request comes from who holds a secret access key
things     which devices the registry of AWS IoT has, and how the others get there
"""

from tpxd.connectors.aws_iot import connector as _connector  # noqa: F401 - registers it
