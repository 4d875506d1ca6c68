"""Modules that tests install as third-party plug-ins of LeRobot."""
