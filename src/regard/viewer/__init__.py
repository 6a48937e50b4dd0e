"""The viewer: a page that shows readings, served over HTTP, in a notebook, or saved as one file.

protocol/   the messages between the page and Python, and the limits that both know
api.py      answers them: the HTTP API, whatever carries it; replies.py and tiles.py compute the numbers
chat.py     what models write for a page, token by token
asking.py   answers a question about documents
cache.py    what is kept of readings, within bounds       jobs.py   what runs in the background
server.py   HTTP, for `regard serve`                      access.py   access control; startup.py: models and first text
widget.py   the channel of a notebook
answer.py   the page of an answer from documents
bundle.py   the page itself; payload.py: what a saved page carries. Its source is in frontend/
"""
