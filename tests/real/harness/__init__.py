"""What every test of tests/real stands on: processes with deadlines, the appliance, a receiver behind it, a reference."""
