FROM keepline-stand-in:base
RUN usermod -u 99 haproxy && groupmod -g 99 haproxy
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
