"""Files on local disks and object stores: read at any byte, written whole or not at all, locked."""
