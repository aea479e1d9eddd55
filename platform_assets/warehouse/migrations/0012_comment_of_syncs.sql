comment on table ops.syncs is 'The ledger: one row a sync. rows_loaded counts every row that reached the raw table, '
    'new and updated; rows_updated is a part of it. rows_deleted counts deletes: those that the source sent are a part '
    'of rows_loaded, those found because a snapshot or a replacement has the row no more are not.';
