"""What hooks JCache into each I/O stack, one module per stack."""
