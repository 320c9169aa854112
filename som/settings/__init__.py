"""Settings: dataclasses that a command line, a preset and a run's config.yaml fill. Free of torch.

``plain`` brings them into YAML and back, ``presets`` finds those of configs/, ``command_line`` parses and runs
commands, ``messages`` turns the names of settings in a library's message into options.
"""
