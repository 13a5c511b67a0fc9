# Completion of jcache in bash: what click, which knows the commands, says to do.
eval "$(_JCACHE_COMPLETE=bash_source jcache)"
