FROM keepline-stand-in:base
USER nobody
CMD ["turnserver"]
