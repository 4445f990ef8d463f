"""The outside of Longleaf: settings, composition root, HTTP and command line."""
