"""The control plane: what people and programs ask the running daemon, and what they tell it.

answers       how the control plane answers: JSON, never cached, errors as IoT Flow's API writes them
bodies        reads a request's body before the application sees it: so much of it, within so much time
daemon_state  the daemon as its control plane sees it, and whether the parts that must never stand still moved
guard         who may ask for what
listening     where the control plane listens, and streams on which no peer can make it wait for ever
routes        the routes of the control plane
server        serves the control plane with hypercorn's trio worker
state         what the control plane needs to know of the daemon, and what it may ask it to do
verdict       health as a whole: one word, and every reason why it is not the better one

Imports reload, connection, downlinks, intake, connector, codecs, spool, config, wire; the ground is open to all.
"""
