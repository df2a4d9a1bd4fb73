"""The control plane: what people and programs ask the running daemon, and what they tell it.

state.py     what the daemon must offer; the rest of the room knows nothing else of it
verdict.py   health as a whole, pure
guard.py     who may ask for what, pure, and the gate in front of the routes
routes.py    the routes
listening.py the sockets, and the streams on them
server.py    serves the routes with hypercorn
"""
