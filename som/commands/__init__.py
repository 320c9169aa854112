"""The commands of ``som4d``, one file each: parse settings, call the library, tell the person who waits."""
