"""Reading the inbox of webhooks.

order       what makes reading by sequence safe while several receivers write
records     deliveries to JSON records
connector   the inbox as a connector
"""
