/** A promise and the functions that settle it. */
export class Deferred {
  isSettled = false;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => this.#settle(resolve, value);
      this.reject = (error) => this.#settle(reject, error);
    });
    // Whoever awaits it sees the rejection; that nobody does is no error.
    this.promise.catch(() => {});
  }

  #settle(how, value) {
    this.isSettled = true;
    how(value);
  }
}
