# Completion of jcache in fish: what click, which knows the commands, says to do.
_JCACHE_COMPLETE=fish_source jcache | source
