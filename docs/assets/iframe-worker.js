// A browser starts no worker from file://; there an iframe stands in for the one of the search.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const iframe = document.createElement("iframe")
      iframe.hidden = true
      document.body.appendChild(iframe)
      const inner = (this.inner = iframe.contentWindow)
      const load = (source) =>
        new Promise((done, failed) => {
          const script = inner.document.createElement("script")
          script.src = new URL(source, location)
          script.onload = done
          script.onerror = failed
          inner.document.head.appendChild(script)
        })
      inner.IFrameWorker = window.IFrameWorker
      inner.importScripts = (...sources) => sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve())
      inner.postMessage = (data) => setTimeout(() => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      })
      this.ready = load(url)
    }
    postMessage(data) {
      this.ready.then(() => {
        const event = new this.inner.MessageEvent("message", { data })
        this.inner.dispatchEvent(event)
      })
    }
    terminate() {}
  }
  window.Worker = window.IFrameWorker
}
