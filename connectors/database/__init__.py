"""Reading databases: PostgreSQL by COPY (`postgres`), every other SQLAlchemy dialect by Arrow batches (`alchemy`)."""
