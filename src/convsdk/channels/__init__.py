"""The built-in channels. Each comes in through this project's own entry points, as everybody else's do."""
