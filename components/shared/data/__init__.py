"""The rows that flow between stages: their schemas, Parquet files, artifacts and the journal."""
