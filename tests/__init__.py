"""The tests of wsframe. README.md says where a test goes."""
