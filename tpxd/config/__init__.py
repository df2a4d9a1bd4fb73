"""What people type: TOML, settings, fields, secrets, and what is wrong with them, by line and column.

alarms           `[[alarms]]`: too few uplinks over a connection within hours of the week that the file names
connection_file  a whole connection file, but for the model of its `[configuration]`, which belongs to the connector
fields           what people may type into a connection file: the types of its fields
flow             which uplinks a connection takes: `[flow] matchers`, as in ThingPark X IoT Flow
problems         what pydantic found wrong, as problems of a file: in plain words, with their places
remarks          what is allowed in a connection file and may surprise whoever wrote it
secret           secrets that people refer to in a file: where they come from, and their types
settings         the daemon's own settings: `tpxd.toml`, each key overridable by the environment
toml             a TOML file as a document whose parts know where they stand
toml_places      where things stand in a TOML document: line and column of every key and every value

Imports the ground only.
"""
