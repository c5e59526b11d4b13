"""Files on local disks and object stores: random-access reads, atomic writes, locks, hashes."""
