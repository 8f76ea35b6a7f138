"""The commands behind `treering …`."""
