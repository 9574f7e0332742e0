FROM keepline-stand-in:base
RUN ln -s /usr/bin/prometheus /usr/bin/promtool /bin/ 2>/dev/null; mkdir /prometheus && chown nobody: /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
