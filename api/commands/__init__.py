"""The commands of ``longleaf``, one file for each family. Importing one loads nothing heavy."""
