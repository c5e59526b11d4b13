"""Devices, process groups, and launching several processes."""
