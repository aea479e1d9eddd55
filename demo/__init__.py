"""Stand-ins for source systems, on loopback: a REST API, a PostgreSQL database, a folder of files, a webhook sender.

They serve demo/data and know nothing of the platform: the platform meets them over HTTP, TCP and the file system.
"""
