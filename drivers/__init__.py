"""The drivers, one package each; they are found through the entry points `machine.drivers`."""
