"""Files: saving, loading, and exporting for other runtimes."""
