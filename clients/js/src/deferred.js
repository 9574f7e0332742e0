/** A promise and the functions that settle it. */
export class Deferred {
  isSettled = false;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => this.#settle(resolve, value);
      this.reject = (error) => this.#settle(reject, error);
    });
    // Callers that await the promise see the rejection. If none does, that is no error.
    this.promise.catch(() => {});
  }

  #settle(how, value) {
    this.isSettled = true;
    how(value);
  }
}
