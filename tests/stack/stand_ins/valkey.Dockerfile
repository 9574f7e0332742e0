FROM keepline-stand-in:base
RUN usermod -u 999 valkey && mkdir /data && chown valkey: /data
WORKDIR /data
CMD ["valkey-server"]
