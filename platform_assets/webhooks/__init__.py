"""The receiver of webhooks: a small ASGI app in a process of its own.

schemes   whether a delivery is genuine, in time and well formed
hooks     the sources that receive, ready to verify
rates     how many deliveries a source may send
blocked   what no stream may keep of a body
scrub     what is blocked since, taken out of bodies that wait
inbox     group commit into ops.webhook_inbox
metrics   what happened, as Prometheus text
backlog   what the streams have not read yet
prune     old deliveries that every stream has read leave the inbox
app       the ASGI app
serve     the process
"""
