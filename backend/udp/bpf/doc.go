package bpf

//go:generate go tool bpf2go -go-package bpf -target bpfel -type reason -cflags "-O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" flannel flannel.c
