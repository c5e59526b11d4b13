"""Tar, zip and parquet files, indexed and read in place: nothing is unpacked."""
