cd /work/tmp/mk; gcc $F -I/work/main/pyconv/_kernels h.c -o h
