"""Images inside tar, zip and parquet files, found and read without unpacking the archive."""
