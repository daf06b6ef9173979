"""The server's end of the engine boundary: starts a worker, sends it messages, and tells what comes back.

`ProcessLink` runs the worker in a child process, as a server does; `ThreadLink` in a thread of this one, as tests may.
Both belong to the event loop that started them, call their `on_message` and `on_lost` in it, and never from elsewhere.
A link is used once: when the worker is lost, its owner starts another.
"""
